-- A dissector for the captures of vhost-user that vhostd writes with --wire=FILE.
--
-- Copy it into Wireshark's folder of personal Lua plugins (Help, About Wireshark, Folders), or load
-- it for one call: tshark -X lua_script:vhost_user.lua -r FILE
--
-- Link type 162 (LINKTYPE_USER15) has packets of 12 bytes and a message or a text:
--   u8 version (1), u8 kind, u8 side, u8 channel, u32 connection, u8 descriptors, 3 bytes of 0
-- All numbers are little-endian.

local VERSION = 1
local HEAD_BYTES = 12
local MESSAGE = 0
local TOO_MANY_DESCRIPTORS = 255

-- tests/unit/wireshark_test.ts compares this block with the tables of src/.
-- tables begin
local kinds = { [0] = "message", "connected", "ended", "note" }
local sides = { [0] = "front-end", "back-end" }
local channels = { [0] = "main", "back" }
local frontend_requests = {
  [1] = { name = "GET_FEATURES", payload = "empty", reply = "u64" },
  [2] = { name = "SET_FEATURES", payload = "u64" },
  [3] = { name = "SET_OWNER", payload = "empty" },
  [4] = { name = "RESET_OWNER", payload = "empty" },
  [5] = { name = "SET_MEM_TABLE", payload = "memory" },
  [6] = { name = "SET_LOG_BASE", payload = "log", reply = "optionalU64" },
  [7] = { name = "SET_LOG_FD", payload = "empty" },
  [8] = { name = "SET_VRING_NUM", payload = "vringState" },
  [9] = { name = "SET_VRING_ADDR", payload = "vringAddress" },
  [10] = { name = "SET_VRING_BASE", payload = "vringState" },
  [11] = { name = "GET_VRING_BASE", payload = "vringState", reply = "vringState" },
  [12] = { name = "SET_VRING_KICK", payload = "vringFd" },
  [13] = { name = "SET_VRING_CALL", payload = "vringFd" },
  [14] = { name = "SET_VRING_ERR", payload = "vringFd" },
  [15] = { name = "GET_PROTOCOL_FEATURES", payload = "empty", reply = "u64" },
  [16] = { name = "SET_PROTOCOL_FEATURES", payload = "u64" },
  [17] = { name = "GET_QUEUE_NUM", payload = "empty", reply = "u64" },
  [18] = { name = "SET_VRING_ENABLE", payload = "vringState" },
  [19] = { name = "SEND_RARP", payload = "u64" },
  [20] = { name = "NET_SET_MTU", payload = "u64" },
  [21] = { name = "SET_BACKEND_REQ_FD", payload = "empty" },
  [22] = { name = "IOTLB_MSG", payload = "iotlb", reply = "u64" },
  [23] = { name = "SET_VRING_ENDIAN", payload = "vringState" },
  [24] = { name = "GET_CONFIG", payload = "config", reply = "configReply" },
  [25] = { name = "SET_CONFIG", payload = "config" },
  [26] = { name = "CREATE_CRYPTO_SESSION", payload = "cryptoSession", reply = "cryptoSessionReply" },
  [27] = { name = "CLOSE_CRYPTO_SESSION", payload = "u64" },
  [28] = { name = "POSTCOPY_ADVISE", payload = "empty", reply = "empty" },
  [29] = { name = "POSTCOPY_LISTEN", payload = "empty" },
  [30] = { name = "POSTCOPY_END", payload = "empty", reply = "u64" },
  [31] = { name = "GET_INFLIGHT_FD", payload = "inflight", reply = "inflight" },
  [32] = { name = "SET_INFLIGHT_FD", payload = "inflight" },
  [33] = { name = "GPU_SET_SOCKET", payload = "empty" },
  [34] = { name = "RESET_DEVICE", payload = "empty" },
  [35] = { name = "VRING_KICK", payload = "vringState" },
  [36] = { name = "GET_MAX_MEM_SLOTS", payload = "empty", reply = "u64" },
  [37] = { name = "ADD_MEM_REG", payload = "memoryRegion" },
  [38] = { name = "REM_MEM_REG", payload = "memoryRegion" },
  [39] = { name = "SET_STATUS", payload = "u64" },
  [40] = { name = "GET_STATUS", payload = "empty", reply = "u64" },
  [41] = { name = "GET_SHARED_OBJECT", payload = "shared", reply = "empty" },
  [42] = { name = "SET_DEVICE_STATE_FD", payload = "deviceState", reply = "u64" },
  [43] = { name = "CHECK_DEVICE_STATE", payload = "empty", reply = "u64" },
}
local backend_requests = {
  [1] = { name = "IOTLB_MSG", payload = "iotlb" },
  [2] = { name = "CONFIG_CHANGE_MSG", payload = "empty" },
  [3] = { name = "VRING_HOST_NOTIFIER_MSG", payload = "vringArea" },
  [4] = { name = "VRING_CALL", payload = "vringState" },
  [5] = { name = "VRING_ERR", payload = "vringState" },
  [6] = { name = "SHARED_OBJECT_ADD", payload = "shared" },
  [7] = { name = "SHARED_OBJECT_REMOVE", payload = "shared" },
  [8] = { name = "SHARED_OBJECT_LOOKUP", payload = "shared", reply = "u64" },
  [9] = { name = "SHMEM_MAP", payload = "mmap" },
  [10] = { name = "SHMEM_UNMAP", payload = "mmap" },
}
local protocol_features = {
  [0] = "MQ",
  [1] = "LOG_SHMFD",
  [2] = "RARP",
  [3] = "REPLY_ACK",
  [4] = "NET_MTU",
  [5] = "BACKEND_REQ",
  [6] = "CROSS_ENDIAN",
  [7] = "CRYPTO_SESSION",
  [8] = "PAGEFAULT",
  [9] = "CONFIG",
  [10] = "BACKEND_SEND_FD",
  [11] = "HOST_NOTIFIER",
  [12] = "INFLIGHT_SHMFD",
  [13] = "RESET_DEVICE",
  [14] = "INBAND_NOTIFICATIONS",
  [15] = "CONFIGURE_MEM_SLOTS",
  [16] = "STATUS",
  [17] = "XEN_MMAP",
  [18] = "SHARED_OBJECT",
  [19] = "DEVICE_STATE",
  [20] = "GET_VRING_BASE_INFLIGHT",
  [21] = "GPA_ADDRESSES",
  [22] = "SHMEM",
  [23] = "GET_VRING_BASE_SKIP_DRAIN",
}
local features = {
  [24] = "NOTIFY_ON_EMPTY",
  [26] = "LOG_ALL",
  [27] = "ANY_LAYOUT",
  [28] = "INDIRECT_DESC",
  [29] = "EVENT_IDX",
  [30] = "PROTOCOL_FEATURES",
  [32] = "VERSION_1",
  [33] = "ACCESS_PLATFORM",
  [34] = "RING_PACKED",
  [35] = "IN_ORDER",
  [36] = "ORDER_PLATFORM",
  [37] = "SR_IOV",
  [38] = "NOTIFICATION_DATA",
  [39] = "NOTIF_CONFIG_DATA",
  [40] = "RING_RESET",
  [41] = "ADMIN_VQ",
}
local device_status = {
  [0] = "ACKNOWLEDGE",
  [1] = "DRIVER",
  [2] = "DRIVER_OK",
  [3] = "FEATURES_OK",
  [6] = "DEVICE_NEEDS_RESET",
  [7] = "FAILED",
}
-- tables end

-- The fields of each kind of payload in their order: a name and a size in bytes. A field without a
-- name is padding, and one without a size takes the rest.
local region = {
  { "guest_address", 8 },
  { "size", 8 },
  { "user_address", 8 },
  { "mmap_offset", 8 },
}
local vring_fd = { { "index", 1 }, { "no_fd", 1 }, { nil, 6 } }
local config = { { "offset", 4 }, { "size", 4 }, { "flags", 4 }, { "data" } }
local payloads = {
  empty = {},
  u64 = { { "value", 8 } },
  optionalU64 = { { "value", 8 } },
  vringState = { { "index", 4 }, { "num", 4 } },
  vringAddress = {
    { "index", 4 },
    { "flags", 4 },
    { "descriptor", 8 },
    { "used", 8 },
    { "available", 8 },
    { "log", 8 },
  },
  memory = { { "regions", 4 }, { nil, 4 } },
  memoryRegion = { { nil, 8 }, region[1], region[2], region[3], region[4] },
  log = { { "size", 8 }, { "offset", 8 } },
  iotlb = {
    { "iova", 8 },
    { "size", 8 },
    { "user_address", 8 },
    { "permission", 1 },
    { "type", 1 },
    { nil, 6 },
  },
  config = config,
  configReply = config,
  vringFd = vring_fd,
  vringArea = { vring_fd[1], vring_fd[2], vring_fd[3], { "size", 8 }, { "offset", 8 } },
  inflight = {
    { "mmap_size", 8 },
    { "mmap_offset", 8 },
    { "num_queues", 2 },
    { "queue_size", 2 },
    { nil, 4 },
  },
  deviceState = { { "direction", 4 }, { "phase", 4 } },
  shared = { { "uuid" } },
  cryptoSession = { { "op_code", 8 }, { nil, 1056 }, { "session_id", 8 } },
  cryptoSessionReply = { { nil, 1064 }, { "session_id", 8 } },
  mmap = {
    { "shmid", 1 },
    { nil, 7 },
    { "fd_offset", 8 },
    { "shm_offset", 8 },
    { "length", 8 },
    { "writable", 8 },
  },
}

-- What the bits of a value mean, by the request that has it.
local bit_names = {
  GET_FEATURES = features,
  SET_FEATURES = features,
  GET_PROTOCOL_FEATURES = protocol_features,
  SET_PROTOCOL_FEATURES = protocol_features,
  GET_STATUS = device_status,
  SET_STATUS = device_status,
}

local proto = Proto("vhost_user", "vhost-user")
local f = {
  kind = ProtoField.uint8("vhost_user.kind", "Kind", base.DEC, kinds),
  side = ProtoField.uint8("vhost_user.side", "Side", base.DEC, sides),
  channel = ProtoField.uint8("vhost_user.channel", "Channel", base.DEC, channels),
  connection = ProtoField.uint32("vhost_user.connection", "Connection"),
  descriptors = ProtoField.uint8("vhost_user.descriptors", "Descriptors (255: too many)"),
  text = ProtoField.string("vhost_user.text", "Text"),
  request = ProtoField.string("vhost_user.request", "Request"),
  id = ProtoField.uint32("vhost_user.request.id", "Number"),
  message_version = ProtoField.uint32("vhost_user.version", "Version", base.DEC, nil, 0x3),
  reply = ProtoField.bool("vhost_user.reply", "Reply", 32, nil, 0x4),
  need_reply = ProtoField.bool("vhost_user.need_reply", "Acknowledgement wanted", 32, nil, 0x8),
  payload_bytes = ProtoField.uint32("vhost_user.payload_bytes", "Size of the payload"),
  payload = ProtoField.bytes("vhost_user.payload", "Payload"),
  bit = ProtoField.string("vhost_user.bit", "Bit"),
  request_in = ProtoField.framenum("vhost_user.request_in", "Request in", base.NONE, frametype.REQUEST),
  reply_in = ProtoField.framenum("vhost_user.reply_in", "Reply in", base.NONE, frametype.RESPONSE),
  time = ProtoField.relative_time("vhost_user.time", "Time since the request"),
}
local values = {
  data = ProtoField.bytes("vhost_user.data", "data"),
  uuid = ProtoField.bytes("vhost_user.uuid", "uuid"),
  session_id = ProtoField.int64("vhost_user.session_id", "session_id"),
}
for _, fields in pairs(payloads) do
  for _, field in ipairs(fields) do
    local name = field[1]
    if name and not values[name] then
      values[name] = ProtoField.uint64("vhost_user." .. name, name, base.DEC_HEX)
    end
  end
end
for name, field in pairs(values) do
  f["value_" .. name] = field
end
proto.fields = f
local malformed = ProtoExpert.new(
  "vhost_user.malformed", "The payload is shorter than its layout",
  expert.group.MALFORMED, expert.severity.WARN
)
proto.experts = { malformed }

-- Requests that wait for their reply, by connection, and the pairs that were found, by frame.
local pending, pairs_by_frame = {}, {}
function proto.init()
  pending, pairs_by_frame = {}, {}
end

-- Shows the names of the bits that are set.
local function add_bits(tree, range, names)
  local found = {}
  for i = 0, range:len() - 1 do
    local byte = range(i, 1):uint()
    for bit = 0, 7 do
      if math.floor(byte / 2 ^ bit) % 2 == 1 then
        local number = 8 * i + bit
        local name = names[number] or ("bit " .. number)
        tree:add(f.bit, range(i, 1), name)
        found[#found + 1] = name
      end
    end
  end
  return table.concat(found, " ")
end

-- Adds fields to a tree, and returns where they end and a summary of them.
local function add_fields(tree, buffer, at, fields, names)
  local summary = {}
  for _, field in ipairs(fields) do
    local name, size = field[1], field[2]
    size = size or buffer:len() - at
    if at + size > buffer:len() then
      tree:add_proto_expert_info(malformed)
      break
    end
    if name and size > 0 then
      local range = buffer(at, size)
      local item = tree:add_le(values[name], range)
      if name == "value" and names then
        summary[#summary + 1] = add_bits(item, range, names)
      elseif name ~= "data" then
        summary[#summary + 1] = name .. "=" .. (size <= 8 and tostring(range:le_uint64()) or tostring(range:bytes()))
      end
    end
    at = at + size
  end
  return at, table.concat(summary, " ")
end

local function add_payload(tree, buffer, kind, names)
  local at, summary = add_fields(tree, buffer, 0, payloads[kind], names)
  if kind == "memory" and at == 8 then
    for i = 1, buffer(0, 4):le_uint() do
      if at + 32 > buffer:len() then
        tree:add_proto_expert_info(malformed)
        break
      end
      local branch = tree:add(buffer(at, 32), "Region " .. i - 1)
      at = add_fields(branch, buffer, at, region)
    end
  end
  return summary
end

-- Links a reply on the front-end's channel to the request before it: they take turns.
local function link(tree, pinfo, connection, is_reply)
  if not pinfo.visited then
    if is_reply then
      local request = pending[connection]
      if request then
        local pair = { request = request.number, time = pinfo.abs_ts - request.time, reply = pinfo.number }
        pairs_by_frame[request.number], pairs_by_frame[pinfo.number] = pair, pair
        pending[connection] = nil
      end
    else
      pending[connection] = { number = pinfo.number, time = pinfo.abs_ts }
    end
  end
  local pair = pairs_by_frame[pinfo.number]
  if pair and is_reply then
    tree:add(f.request_in, pair.request):set_generated()
    local seconds = math.floor(pair.time)
    local time = NSTime.new(seconds, math.floor((pair.time - seconds) * 1e9 + 0.5))
    tree:add(f.time, time):set_generated()
  elseif pair then
    tree:add(f.reply_in, pair.reply):set_generated()
  end
end

local function add_message(tree, buffer, pinfo, connection, is_back)
  local id, flags = buffer(0, 4):le_uint(), buffer(4, 4):le_uint()
  local is_reply = math.floor(flags / 4) % 2 == 1
  local needs_reply = math.floor(flags / 8) % 2 == 1
  local rule = (is_back and backend_requests or frontend_requests)[id]
  local name = rule and rule.name or ("request " .. id)
  tree:add(f.request, buffer(0, 4), name)
  tree:add_le(f.id, buffer(0, 4))
  tree:add_le(f.message_version, buffer(4, 4))
  tree:add_le(f.reply, buffer(4, 4))
  tree:add_le(f.need_reply, buffer(4, 4))
  tree:add_le(f.payload_bytes, buffer(8, 4))
  local summary = ""
  if buffer:len() > 12 then
    local payload = buffer(12)
    local kind = rule and (is_reply and (rule.reply or "u64") or rule.payload)
    local branch = tree:add(f.payload, payload)
    if kind then
      local is_acknowledgement = is_reply and not rule.reply
      local names = not is_acknowledgement and bit_names[name] or nil
      summary = add_payload(branch, payload:tvb(), kind, names)
    end
  elseif is_reply and rule and rule.reply and rule.reply ~= "empty" then
    summary = "failed"
  end
  if not is_back then
    link(tree, pinfo, connection, is_reply)
  end
  return name .. (is_reply and " reply" or needs_reply and " (acknowledge)" or ""), summary
end

function proto.dissector(buffer, pinfo, root)
  if buffer:len() < HEAD_BYTES or buffer(0, 1):uint() ~= VERSION then
    return 0
  end
  local kind, is_back = buffer(1, 1):uint(), buffer(3, 1):uint() == 1
  local connection = buffer(4, 4):le_uint()
  local from = buffer(2, 1):uint()
  local tree = root:add(proto, buffer())
  tree:add(f.kind, buffer(1, 1))
  tree:add(f.side, buffer(2, 1))
  tree:add(f.channel, buffer(3, 1))
  tree:add_le(f.connection, buffer(4, 4))
  tree:add(f.descriptors, buffer(8, 1))
  pinfo.cols.protocol = "vhost-user"
  pinfo.cols.src = sides[from] or "?"
  pinfo.cols.dst = sides[1 - from] or "?"
  local info, details
  if kind == MESSAGE and buffer:len() >= HEAD_BYTES + 12 then
    info, details = add_message(tree, buffer(HEAD_BYTES):tvb(), pinfo, connection, is_back)
    local descriptors = buffer(8, 1):uint()
    if descriptors > 0 then
      details = details .. " (descriptors: " ..
        (descriptors == TOO_MANY_DESCRIPTORS and "too many" or descriptors) .. ")"
    end
  else
    info, details = kinds[kind] or "?", ""
    if buffer:len() > HEAD_BYTES then
      tree:add_packet_field(f.text, buffer(HEAD_BYTES), ENC_UTF_8)
      details = buffer(HEAD_BYTES):string(ENC_UTF_8)
    end
  end
  pinfo.cols.info = "[" .. connection .. "] " .. info .. (details == "" and "" or ": " .. details)
  return buffer:len()
end

DissectorTable.get("wtap_encap"):add(wtap_encaps.USER15, proto)
