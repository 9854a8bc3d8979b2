"""What has to be done in one step, in Lua.  Each may be done twice without harm."""

from hashlib import sha1

from attrs import field, frozen


@frozen
class Script:
    text: str
    sha: str = field(init=False)

    @sha.default
    def _sha(self) -> str:
        return sha1(self.text.encode()).hexdigest()  # the server's name for it


APPEND = Script("""
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local id = last and last[1] or '0-0'
if id ~= ARGV[1] then return id end
local done
if ARGV[4] == '1' then
  done = redis.pcall('XADD', KEYS[1], ARGV[2], 'b', ARGV[3], 'c', '')
else
  done = redis.pcall('XADD', KEYS[1], ARGV[2], 'b', ARGV[3])
end
if type(done) ~= 'table' or not done.err then return ARGV[2] end
if string.find(done.err, 'equal or smaller', 1, true) then return '' end
return done
""")
"""Keys: a log.  Then the id before, the entry's, its body, "1" for a checkpoint.  Empty: a stream
takes no id that is not beyond all it has ever had, also where those were deleted."""

RENEW = Script("""
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")
"""Keys: a lease.  Then its holder, and the milliseconds for which it will be his."""

DROP = Script("""
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")
"""Keys: a lease.  Then its holder."""

HOLDERS = Script("""
local found = {}
for i, key in ipairs(KEYS) do
  local holder = redis.pcall('GET', key)
  if type(holder) == 'table' then holder = 'a value of another type' end
  found[i] = holder
end
return found
""")
"""Keys: leases.  Not MGET, to which a key that is no string is none: nobody could say what keeps
its shard from all."""
