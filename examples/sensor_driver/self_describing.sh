# A driver's side of a self-describing config space (src/virtio/config/self_describing.ts), for shell
# scripts that run as root in a guest. It needs busybox's devmem.
#
# open_device ID     takes the virtio device of that type from the kernel, on PCI or MMIO
# reset TYPE         resets the fields, by the status byte, which has that type; takes it
# status BITS        adds bits to the status byte
# take TYPE          marks the next field of a type; its data are $length bytes at $at. Fails if none is left
# acknowledge AT LENGTH BIT    of a bit field. Fails if the device does not offer the bit
# u8 AT, i32 AT, text AT LENGTH    print data of config space
#
# PAUSE=SECONDS waits before each write, for people who watch.

ACKNOWLEDGE=0x01 DRIVER=0x02 DRIVER_OK=0x04 FAILED=0x80
USED=0x80

open_device() {
  pci_id=$(printf 0x%04x $((0x1040 + $1)))
  for device in /sys/bus/pci/devices/*; do
    [ "$(cat "$device/vendor" "$device/device" 2>/dev/null | xargs)" = "0x1af4 $pci_id" ] || continue
    open_pci && return
  done
  for device in /sys/bus/platform/devices/*; do
    open_mmio "$(printf 0x%04x "$1")" && return
  done
  echo "$0: expected a virtio device of type $1, found none" >&2
  exit 1
}

# The vendor capability of type 4 says where config space is: virtio 1.3, 4.1.4
open_pci() {
  [ -e "$device/driver" ] && echo "${device##*/}" >"$device/driver/unbind"
  [ "$(cat "$device/enable")" = 0 ] && echo 1 >"$device/enable"
  capability=$(pci_number 0x34 1)
  while [ "$capability" != 0 ]; do
    if [ "$(pci_number "$capability" 1) $(pci_number $((capability + 3)) 1)" = "9 4" ]; then
      bar=$(sed -n "$(($(pci_number $((capability + 4)) 1) + 1))s/ .*//p" "$device/resource")
      window=$((bar + $(pci_number $((capability + 8)) 4)))
      return
    fi
    capability=$(pci_number $((capability + 1)) 1)
  done
  return 1
}

pci_number() { od -An -v -t "u$2" -j "$(($1))" -N "$2" "$device/config" | xargs; }

# Registers, then config space at 0x100: virtio 1.3, 4.2.2
open_mmio() {
  address=$(sed -n "s/^ *\([0-9a-f]*\)-.* : ${device##*/}$/0x\1/p" /proc/iomem | head -n 1)
  [ "$address" ] || return
  if [ -e "$device/driver" ]; then
    [ "$(cat "$device"/virtio*/device 2>/dev/null)" = "$1" ] || return
    echo "${device##*/}" >"$device/driver/unbind"
  fi
  [ "$(devmem "$address") $(($(devmem $((address + 8)))))" = "0x74726976 $(($1))" ] || return
  window=$((address + 0x100))
}

u8() { echo $(($(devmem $((window + $1)) 8))); }

i32() {
  u32=$(($(u8 "$1") | $(u8 $(($1 + 1))) << 8 | $(u8 $(($1 + 2))) << 16 | $(u8 $(($1 + 3))) << 24))
  echo $(((u32 ^ 0x80000000) - 0x80000000))
}

text() {
  for i in $(seq "$1" $(($1 + $2 - 1))); do
    byte=$(u8 "$i")
    [ "$byte" = 0 ] && break
    printf "\\$(printf %o "$byte")"
  done
}

put() {
  sleep "${PAUSE:-0}"
  devmem $((window + $1)) 8 "$2"
}

# seek TYPE MASK
seek() {
  at=0
  while [ $at -lt 256 ]; do
    type=$(u8 $at) length=$(u8 $((at + 1)))
    [ "$type" = 0 ] && return 1
    at=$((at + 2))
    [ $((type & $2)) = "$1" ] && return
    at=$((at + length))
  done
  return 1
}

take() { seek "$1" 0xff && put $((at - 2)) $(($1 | USED)); }

reset() {
  seek "$1" 0x7f || return
  status_at=$at
  # Only a change to 0 is a reset
  [ "$(u8 $status_at)" = 0 ] && status $ACKNOWLEDGE
  put $status_at 0
  take "$1"
}

status() { put $status_at $(($(u8 $status_at) | $1)); }

acknowledge() {
  half=$(($2 / 2)) byte=$(($1 + $3 / 8)) bit=$((1 << $3 % 8))
  [ "$3" -lt $((half * 8)) ] && [ $(($(u8 $byte) & bit)) != 0 ] || return
  put $((byte + half)) $(($(u8 $((byte + half))) | bit))
}
