# Runs what the host sends over the serial port of virtio: one line of base64 is one script.
# A shell without applets of its own, so that the programs in /tools are found before those of busybox.
# First it says that it is ready; then each answer is a line "STATUS BYTES", then that many bytes of what the script printed.
port=$(ls /dev/vport*p1) # the first number is that of the virtio device
exec 3<> "$port"
echo ready >&3 # what the host sends before the port is open is lost
while :; do
  if read -r line <&3; then
    [ -n "$line" ] || continue
    printf %s "$line" | base64 -d > /tmp/command
    /tools/dash /tmp/command < /dev/null > /tmp/output 2>&1
    status=$?
    { echo "$status $(wc -c < /tmp/output)"; cat /tmp/output; } >&3
  else
    sleep 0.1 # nobody is connected on the other side
  fi
done
