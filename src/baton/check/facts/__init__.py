"""What several rules ask of launches and manifests."""
