"""Contracts: identity, schemas, ledger, fingerprint, commit store, and the pinned inputs. Imports nothing of ours."""
