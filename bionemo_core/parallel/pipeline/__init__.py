"""Pipeline parallelism: the stages that share the layers, and the order of their passes."""
