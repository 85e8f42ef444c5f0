while true; do echo "at $TEMPERATURE degrees"; sleep 1; done
