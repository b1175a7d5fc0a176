"""From records to batches: order, masking, packing, collation and loading."""
