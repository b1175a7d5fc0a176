"""Opening a model: `locate` finds what a path or address names, `load` builds the network and fills its weights."""
