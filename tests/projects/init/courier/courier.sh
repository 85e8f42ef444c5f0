while true; do
    date >/spool/last
    echo "$GREETING: delivered from $QUEUE"
    sleep "$INTERVAL"
done
