-- Puts jobs in line. Idempotent: a ticket that is known changes nothing, one that changed replaces the old.
-- Guarantees that a running job and a newer epoch of a job are never touched. Answers one word a ticket.
local now = clock()
local answers, users = {}, {}
for i, ticket in ipairs(args.tickets) do
  local id, known = ticket.id, get_job(ticket.id)
  local job = {
    user = ticket.user, pool = ticket.pool, base = ticket.band, band = ticket.band,
    seq = ticket.seq, epoch = ticket.epoch, cost = ticket.cost, run_at = ticket.run_at,
  }
  local same = known ~= nil and known ~= false
  for field, value in pairs(job) do
    same = same and (field == 'band' or known[field] == value)
  end
  if known and call('ZSCORE', KEY.lease, id) then
    answers[i] = 'leased'
  elseif known and known.epoch > job.epoch then
    answers[i] = 'stale'
  else
    answers[i] = 'ok'
    if same then
      -- Its user may have been lost from the line, or its next lift, by themselves: a sweep over the rows mends both.
      if not call('ZSCORE', KEY.delayed, id) then
        if known.band > 0 then call('ZADD', KEY.age, 'NX', now + args.age_ms, id) end
        users[known.user] = true
      end
    else
      if known then
        out_of_line(id, known)
        call('HDEL', KEY.job, id)
        refresh(known.user)
      end
      wait(id, job, now)
      refresh(job.user)
    end
  end
end
for user, _ in pairs(users) do refresh(user) end
wake()
return cjson.encode(answers)
