"""Contents of other revisions of a repository that a download copies instead of fetching them."""
