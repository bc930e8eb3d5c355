"""The zoo of this year: published scores linked to the exams, and the candidates made of them."""
