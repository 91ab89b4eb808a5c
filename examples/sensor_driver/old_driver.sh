#!/bin/sh
# The first driver of the sensor (backends/sensor). It knows of one reading, and of nothing else.
. "$(dirname "$0")/self_describing.sh"

STATUS=1 READING=3

open_device 38
reset $STATUS
status $ACKNOWLEDGE
status $DRIVER
take $READING
echo "$(text $at 16):" $(i32 $((at + 24))) $(text $((at + 16)) 8)
status $DRIVER_OK
