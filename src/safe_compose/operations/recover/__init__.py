"""Recovery after a crash: what killed runs left half done is finished or rolled back."""
