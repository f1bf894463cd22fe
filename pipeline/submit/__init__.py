"""Job files for Slurm, a Ray cluster and Kubernetes: written to be read, and handed over by the cluster's own tools."""
