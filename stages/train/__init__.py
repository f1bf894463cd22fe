"""Contrastive training from the released tars."""
