"""Networks: what is known of them, how they are loaded, and how one of them is run.

`spec` describes a model without its weights, `loading` builds networks from verified bytes,
`forward` runs one network on a device, `devices` chooses that device.
"""

__all__: list[str] = []
