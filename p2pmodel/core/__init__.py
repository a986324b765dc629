"""Pure values, arithmetic and asyncio helpers that every room uses: names, manifests, piece layout, sizes, views."""
