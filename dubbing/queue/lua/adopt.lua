-- Installs leases of jobs that run according to their rows, so that nobody else is offered them.
-- Guarantees that a lease or an epoch as new as the row's is never touched. Answers 1 installed, 0 known already.
local now = clock()
local answers = {}
for i, running in ipairs(args.running) do
  local ticket, id = running.ticket, running.ticket.id
  local known, holder = get_job(id), get_holder(id)
  local newest = (holder and holder.token) or (known and known.epoch) or -1
  if newest >= running.token then
    answers[i] = 0
  else
    if known then
      if holder then unlease(id, known) else out_of_line(id, known) end
    end
    local job = {
      user = ticket.user, pool = ticket.pool, base = ticket.band, band = ticket.band,
      seq = ticket.seq, epoch = ticket.epoch, cost = ticket.cost, run_at = ticket.run_at,
    }
    put_job(id, job)
    lease(id, job, running.token, running.owner, now + args.ttl)
    if known and known.user ~= ticket.user then refresh(known.user) end
    refresh(ticket.user)
    answers[i] = 1
  end
end
return cjson.encode(answers)
