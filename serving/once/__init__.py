"""Once is once: a request that carries an Idempotency-Key has one answer, however often it is sent."""
