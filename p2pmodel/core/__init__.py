"""Pure values, arithmetic and asyncio tools for every room: names, manifests, piece layout, sizes, views."""
