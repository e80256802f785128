"""Networks: what is known of each architecture, how networks are loaded, and how one is run.

`architectures` is the table in which all kinds of networks differ, `spec` describes a model without
its weights, `loading` builds networks from verified bytes, `forward` runs one network on a device,
`devices` chooses that device, `model` holds a model's networks, `identity` what decides their
samples. `fast` computes HTDemucs on a CPU.
"""

__all__: list[str] = []
