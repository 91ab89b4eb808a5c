#!/bin/sh
# The second driver of the sensor (backends/sensor). It follows every reading that there is, and
# prints it; with the word `follow` also its changes, until it is interrupted.
. "$(dirname "$0")/self_describing.sh"

STATUS=1 FOLLOWED=2 READING=3

# Prints a whole value: the sequence number is the same before and after it.
show() {
  before=
  until [ "$before" = "$(i32 $(($1 + 28)))" ]; do
    before=$(i32 $(($1 + 28)))
    value=$(i32 $(($1 + 24)))
  done
  echo "$(text "$1" 16):" "$value" $(text $(($1 + 16)) 8)
}

open_device 38
reset $STATUS
status $ACKNOWLEDGE
status $DRIVER
followed="0 0"
take $FOLLOWED && followed="$at $length" # an older device has none
index=0 readings=
while seek $READING 0xff && [ "$(text $at 16)" ] && take $READING; do
  acknowledge $followed $index
  readings="$readings $at" index=$((index + 1))
done
last=$(for reading in $readings; do show "$reading"; done)
echo "$last"
status $DRIVER_OK

# A shell runs no eventq, so it looks again and again
while [ "$1" = follow ]; do
  now=$(for reading in $readings; do show "$reading"; done)
  [ "$now" = "$last" ] || echo "$now"
  last=$now
  sleep 1
done
