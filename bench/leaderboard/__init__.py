"""What anybody sends: entries, their types, how they are judged, and submitting them."""
