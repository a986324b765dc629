"""The tensors of a model, streamed from a daemon's hub endpoint while its files arrive. Blocking: engines are."""
