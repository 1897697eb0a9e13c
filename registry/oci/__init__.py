"""Values of the OCI image specification."""
