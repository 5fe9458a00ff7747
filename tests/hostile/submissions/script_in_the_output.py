"""Put HTML and script into everything that a report may show."""
payload = "<script>alert('CANARY-SCRIPT')</script><img src=x onerror=alert(1)>{{ 7*7 }}{% raw %}"
print(payload)
def class_prototypes(*a): raise ValueError(payload)
def squared_euclidean(*a): raise type("<script>CANARY-SCRIPT</script>", (Exception,), {})(payload)
def log_posterior(*a): return payload
raise RuntimeError(payload)
