"""What travels: a bundle packed for its way, whole or without what the receiver holds, in parts where it must be."""
