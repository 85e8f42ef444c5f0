echo "migrated $DATABASE_PATH" && : > "$DATABASE_PATH"
