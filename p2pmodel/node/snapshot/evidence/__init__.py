"""What says that files are right and wanted: mirrors, signatures, second opinions, the policy on contents."""
