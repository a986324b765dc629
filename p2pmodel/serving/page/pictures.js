// Pictures as data URLs, small enough for the model: larger ones are scaled down here, before they are sent.

const LONGEST = 1568; // pixels of the longer side
const LARGEST = 1_000_000; // bytes of a file that is sent as it is
const AS_THEY_ARE = ["image/png", "image/jpeg", "image/webp"];

const read = (file) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(file);
});

export async function scaled(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file); // turned as its EXIF data say
  } catch {
    throw new Error(`${file.name || "the picture"} cannot be read by this browser`);
  }
  const ratio = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  if (ratio === 1 && file.size <= LARGEST && AS_THEY_ARE.includes(file.type)) {
    bitmap.close();
    return read(file);
  }
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * ratio));
  canvas.height = Math.max(1, Math.round(bitmap.height * ratio));
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.toDataURL("image/jpeg", 0.92);
}

export const picturesOf = (list) => [...(list ?? [])].filter((file) => file.type.startsWith("image/"));
