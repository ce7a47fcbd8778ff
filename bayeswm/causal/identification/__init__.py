"""Which effects follow from what was recorded, and how."""
