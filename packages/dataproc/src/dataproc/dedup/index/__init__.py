"""An index of what exists: new documents against all that were added before; what is removed stays removed."""
