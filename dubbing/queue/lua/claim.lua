-- Leases the next jobs of a pool. Guarantees order (band, fair turn, first in first out) and the caps of user, pool
-- and whole, counted from leases. The token is the epoch the job's row gets if the claimer wins it.
local now = clock()
local pool, claims = args.pool, {}
if call('HGET', KEY.meta, 'state') ~= 'ready' then return cjson.encode({state = 'rebuilding'}) end
local _, next_due = promote(now)
if setting('global::paused') == 1 or setting('pool:' .. pool .. ':paused') == 1 then
  return cjson.encode({state = 'paused', next_due = next_due})
end

local room = args.count
local running = count('p|' .. pool .. '|')
for _, field in ipairs({'cap', 'slots'}) do
  local limit = setting('pool:' .. pool .. ':' .. field)
  if limit then room = math.min(room, limit - running) end
end
local whole = setting('global::cap')
if whole then room = math.min(room, whole - call('ZCARD', KEY.lease)) end

while #claims < room do
  local user = call('ZRANGE', READY[pool], 0, 0)[1]
  if not user then break end
  local _, id = head(pool, user)
  local job = get_job(id)
  out_of_line(id, job)
  lease(id, job, job.epoch + 1, args.owner, now + args.ttl)

  -- Start-time fair queueing: a turn costs minutes / weight, and who was not in line saved nothing up.
  local weight = setting('user:' .. user .. ':weight') or 1
  local turn = math.max(1, math.floor(job.cost * args.cost_scale / weight))
  local pool_clock = virtual_time(pool .. '|')
  local start = math.max(virtual_time(pool .. '|' .. user), pool_clock)
  call('HSET', KEY.vt, pool .. '|', math.max(pool_clock, start), pool .. '|' .. user, start + turn)
  refresh(user)
  claims[#claims + 1] = {id = id, token = job.epoch + 1, user = user, pool = pool, band = job.band}
end
return cjson.encode({state = 'ok', claims = claims, next_due = next_due})
