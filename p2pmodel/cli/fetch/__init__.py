"""`p2pmodel fetch`: its options, the fetch through a daemon, copies of the files, and the loaded model's answer."""
