-- Leases the next jobs of a pool. Guarantees order (band, fair turn, first in first out) and the caps of user, pool
-- and whole, counted from leases. The token is the epoch the job's row gets if the claimer wins it.
local now = clock()
local pool, claims = args.pool, {}
if call('HGET', KEY.meta, 'state') ~= 'ready' then return cjson.encode({state = 'rebuilding'}) end
local _, next_due = promote(now)
local this = 'pool:' .. pool
local set = settings('global::paused', 'global::cap', this .. ':paused', this .. ':cap', this .. ':slots')
if set['global::paused'] == 1 or set[this .. ':paused'] == 1 then
  return cjson.encode({state = 'paused', next_due = next_due})
end

local room = args.count
local running = count('p|' .. pool .. '|')
for _, limit in pairs({set[this .. ':cap'], set[this .. ':slots']}) do room = math.min(room, limit - running) end
local whole = set['global::cap']
if whole then room = math.min(room, whole - call('ZCARD', KEY.lease)) end

while #claims < room do
  local user = call('ZRANGE', READY[pool], 0, 0)[1]
  if not user then break end
  local _, id = head(pool, user)
  local job = get_job(id)
  out_of_line(id, job)
  lease(id, job, job.epoch + 1, args.owner, now + args.ttl)

  -- Start-time fair queueing: a turn costs minutes / weight, and who was not in line saved nothing up.
  local weight = 'user:' .. user .. ':weight'
  local turn = math.max(1, math.floor(job.cost * args.cost_scale / (settings(weight)[weight] or 1)))
  local pool_clock, his_clock = pool .. '|', pool .. '|' .. user
  local at = numbers(KEY.vt, {pool_clock, his_clock})
  local start = math.max(at[pool_clock] or 0, at[his_clock] or 0)
  call('HSET', KEY.vt, pool_clock, start, his_clock, start + turn)
  refresh(user)
  claims[#claims + 1] = {id = id, token = job.epoch + 1, user = user, pool = pool, band = job.band}
end
return cjson.encode({state = 'ok', claims = claims, next_due = next_due})
