import json, pytest, time
from extproc import contract
def show(g, r):
    print("\n>>>", r.status_code, dict(r.headers), r.text[:300])
    for s in g.processor.seen: print("   proc", s)
    for n,p in g.providers.items():
        for s in p.seen: print("   prov", n, s)
    print("   attrs", g.processor.attributes)
def retry(n, **kw):
    h={"x-envoy-max-retries":str(n),"x-envoy-retry-on":"5xx,reset,retriable-headers,retriable-status-codes,connect-failure","x-envoy-retriable-header-names":contract.HOP,"x-envoy-retriable-status-codes":"429,401"}
    h.update(kw); return h
FORGE={"authorization":"Bearer client","x-api-key":"client","api-key":"client","cookie":"a=b","x-extproc-targets":"forged","x-extproc-zzz":"1","x-envoy-zzz":"1","x-envoy-max-retries":"9","x-ai-team":"t","x-forwarded-for":"1.2.3.4","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","x-request-id":"mine","x-other":"keep","accept-encoding":"gzip"}
def test_plain(gateway):
    g=gateway; g.processor.plan.order=["a"]
    g.providers["a"].extra={"x-extproc-hop":"forged","x-ai-provider":"forged","x-envoy-overloaded":"true","x-keep":"1","set-cookie":"a=b","server":"prov","x-request-id":"prov-id"}
    show(g, g.post(headers=FORGE))
def test_translate(gateway):
    g=gateway; g.processor.plan.order=["b"]; g.processor.plan.headers={contract.TRANSLATE:"1"}
    show(g, g.post(headers=FORGE))
def test_failover(gateway):
    g=gateway; g.processor.plan.order=["b","a"]; g.processor.plan.headers=retry(1)
    g.providers["b"].behave=503
    show(g, g.post())
@pytest.mark.parametrize("n", ["down","slow","keyless","retired"])
def test_one(gateway,n):
    g=gateway; g.processor.plan.order=[n]; 
    if n=="slow": g.providers["a"].behave="hang"
    t=time.time(); r=g.post(); print(time.time()-t)
    show(g,r)
@pytest.mark.parametrize("n", ["down","slow","keyless","retired"])
def test_one_then_b(gateway,n):
    g=gateway; g.processor.plan.order=[n,"b"]; g.processor.plan.headers=retry(1)
    if n=="slow": g.providers["a"].behave="hang"
    t=time.time(); r=g.post(); print(time.time()-t)
    show(g,r)
def test_reset(gateway):
    g=gateway; g.processor.plan.order=["a"]; g.providers["a"].behave="reset"
    t=time.time(); r=g.post(); print(time.time()-t)
    show(g,r)
def test_pertry(gateway):
    g=gateway; g.processor.plan.order=["a"]; g.providers["a"].behave="hang"; g.processor.plan.headers={"x-envoy-upstream-rq-per-try-timeout-ms":"500"}
    t=time.time(); r=g.post(); print(time.time()-t)
    show(g,r)
def test_pertry_fail(gateway):
    g=gateway; g.processor.plan.order=["a","b"]; g.providers["a"].behave="hang"; g.processor.plan.headers=retry(1,**{"x-envoy-upstream-rq-per-try-timeout-ms":"500"})
    t=time.time(); r=g.post(); print(time.time()-t)
    show(g,r)
def test_noorder(gateway):
    show(gateway, gateway.post())
def test_refuse(gateway):
    gateway.processor.plan.refuse=402
    show(gateway, gateway.post())
def test_crash(gateway):
    gateway.processor.plan.crash=True
    show(gateway, gateway.post())
def test_404(gateway):
    show(gateway, gateway.post("/v1/other"))
    show(gateway, gateway.client.get("/v1/models/a%2Fb"))
    show(gateway, gateway.client.get("/v1/chat/completions"))
def test_413(gateway):
    show(gateway, gateway.post(json={"a":"x"*70000}))
def test_underscore(gateway):
    try: show(gateway, gateway.post(headers={"x_ai_team":"t"}))
    except Exception as e: print(repr(e))
def test_431(gateway):
    show(gateway, gateway.post(headers={"x-a":"t"*70000}))
def test_logs(gateway):
    time.sleep(2.2)
    for n,e in gateway.processor.logs: print(n, json.dumps(e.to_dict())[:1500])
