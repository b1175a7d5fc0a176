"""The way from records to batches: order, masking, packing, collation and loading."""
