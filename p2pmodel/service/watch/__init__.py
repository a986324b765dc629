"""`p2pmodel mirrors watch`: metrics of the probes, and alarms posted to a webhook."""
