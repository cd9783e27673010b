"""vidseq over HTTP and on Ray Serve. `serving.web` knows HTTP and not Ray; `serving.app` puts it on a cluster."""
