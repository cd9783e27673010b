"""What must outlive a replica and is no live session: a database, its tables, their versions, its backup."""
