#!/bin/sh
# A prolog of Slurm: before a job starts on this node, look whether the models that jobs expect are on its disk.
#
#   slurm.conf: Prolog=/etc/slurm/prolog.d/*      (this file there, mode 755)
#
# Slurm starts a prolog without HOME and with a bare PATH, and takes the node out of service where one fails. So this
# one ends with 0, and says in the log of the system what is missing and how to mend it (logger -t p2pmodel-prolog):
# slurmd logs what a prolog prints only if it fails. With DRAIN=yes a node without a model is drained instead. The
# settings are read from /etc/default/p2pmodel-prolog.

MODELS='Qwen/Qwen3-VL-8B-Instruct'    # separated by spaces, as in ORG/NAME@REVISION
CACHE=/local/hub                      # on a disk of the node
COMMAND=p2pmodel
SECONDS_EACH=10                       # bound on one look
DRAIN=no

PATH=/usr/local/bin:/usr/bin:/bin:$PATH
HOME=${HOME:-/root}
export PATH HOME
settings=${PROLOG_SETTINGS:-/etc/default/p2pmodel-prolog}
# shellcheck source=/dev/null
[ -r "$settings" ] && . "$settings"

failed=0
for model in $MODELS; do
  said=$(timeout "$SECONDS_EACH" $COMMAND verify "$model" --quick --quiet --cache-dir "$CACHE" 2>&1 >/dev/null)
  code=$?
  [ $code = 0 ] && continue
  failed=1
  [ $code = 124 ] && said="no answer within $SECONDS_EACH s"
  echo "p2pmodel-prolog: $model: ${said:-exit code $code}" >&2
  command -v logger >/dev/null && logger -t p2pmodel-prolog "$model: ${said:-exit code $code}"
done
[ $failed = 1 ] && [ "$DRAIN" = yes ] && exit 1
exit 0
