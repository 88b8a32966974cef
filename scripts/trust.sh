# Sourced before uv: it shall trust whom pip trusts, such as a company's own authority, but reads none
# of pip's settings, and the system's certificates only when told.  What the user has set stays.
if [ -z "${SSL_CERT_FILE:-}" ]; then
  trusted=${PIP_CERT:-${REQUESTS_CA_BUNDLE:-${CURL_CA_BUNDLE:-$(.venv/bin/python -m pip config get global.cert 2>/dev/null || true)}}}
  if [ -f "$trusted" ]; then export SSL_CERT_FILE=$trusted; fi
fi
# Not where there are none, as in a slim container: uv would stop there, and its own list serves.
for trusted in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem \
  /etc/ssl/cert.pem /System/Library/Keychains; do
  if [ -s "$trusted" ]; then export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS-${UV_NATIVE_TLS-true}}; fi
done
