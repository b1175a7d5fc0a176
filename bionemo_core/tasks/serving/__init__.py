"""The task `serve`: a model behind an HTTP address, with the numbers of the other tasks.

A request passes `guard` (token, size, time), is read by `request_bodies`, becomes `Work` in `served_model`, or in
`served_texts` if it is about texts that a model writes, and is computed by `engine`, the one thread that uses
the model. `app` joins them; `serve` opens the model and listens.
"""
