"""The folders of snapshots: links or plain files, lists, lookup and removal."""
