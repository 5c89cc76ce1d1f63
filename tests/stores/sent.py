"""A reservation whose request has left for a provider."""


async def send(counters, id, holds, lease, **options):
    granted = await counters.reserve(id, holds, lease, **options)
    await counters.forward([id])
    return granted
