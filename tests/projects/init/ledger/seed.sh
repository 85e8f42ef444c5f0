echo seeded
