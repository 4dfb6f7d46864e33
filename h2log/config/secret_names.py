"""The names of what is secret by default: keys of a query, and header fields.

A name is told in one spelling; case and punctuation do not count where it is looked for, so that
`api_key` is also `apiKey`, `API-Key` and `apikey`. The lists are what others hide by default, and
what the standards hand out as a credential:

* OpenTelemetry's conventions for `url.query`: `sig`, `signature`, `AWSAccessKeyId`,
  `X-Goog-Signature`.
* Sentry's deny list and Datadog's obfuscation of queries: passwords, keys, tokens, sessions, CSRF.
* Caddy: `Cookie`, `Set-Cookie`, `Authorization`, `Proxy-Authorization`.
* OAuth 2.0 (RFC 6749, 6750, 7521, 7636, 8628), OpenID Connect and SAML's redirect binding.
* What clouds take in a URL or in a field of their own: signed URLs, and `key` (Google) and `code`
  (Azure Functions, and every authorization code), which are short words for long-lived secrets.

They err on the side of the secret: a site where `code` is a country's gives a list of its own.
"""

from __future__ import annotations

from typing import Final

__all__ = ["HEADERS", "QUERY"]

QUERY: Final = (
    # OAuth 2.0, OpenID Connect, SAML
    *("token", "access_token", "refresh_token", "id_token", "id_token_hint", "code"),
    *("code_verifier", "device_code", "user_code", "client_secret", "client_assertion"),
    *("assertion", "saml_response", "oauth_token", "oauth_verifier", "oauth_signature"),
    # Passwords
    *("password", "passwd", "pwd", "pass", "passphrase", "passcode", "pin", "otp", "totp"),
    *("new_password", "old_password", "current_password", "confirm_password"),
    *("password_confirmation", "password1", "password2"),
    # Keys and secrets
    *("key", "api_key", "app_key", "access_key", "secret_key", "private_key"),
    *("subscription_key", "secret", "app_secret", "shared_secret", "consumer_secret"),
    *("credential", "credentials"),
    # Tokens
    *("auth", "authorization", "auth_token", "auth_key", "api_token", "bearer", "jwt"),
    *("private_token", "security_token", "session_token", "login_token", "reset_token"),
    *("confirmation_token", "verification_token", "invitation_token"),
    *("csrf", "csrf_token", "csrf_middleware_token", "xsrf", "xsrf_token", "authenticity_token"),
    # Sessions
    *("session", "session_id", "session_key", "sid", "jsessionid", "phpsessid", "connect.sid"),
    # Signed URLs
    *("signature", "sig", "hmac", "aws_access_key_id", "x-amz-signature", "x-amz-credential"),
    *("x-amz-security-token", "x-goog-signature", "x-goog-credential"),
)
"""Keys of a query whose values are masked."""

HEADERS: Final = (
    *("authorization", "proxy-authorization", "cookie", "set-cookie", "dpop"),
    *("api-key", "x-api-key", "x-api-token", "token", "x-token", "x-auth", "x-auth-token"),
    *("x-auth-key", "x-access-token", "x-refresh-token", "x-id-token", "x-jwt"),
    *("x-jwt-assertion", "x-session", "x-session-id", "x-session-token"),
    *("csrf-token", "x-csrf-token", "xsrf-token", "x-xsrf-token"),
    *("x-secret", "x-client-secret", "x-password", "x-otp"),
    # What proxies hand on
    *("x-forwarded-authorization", "x-original-authorization", "x-forwarded-access-token"),
    # Of products
    *("x-amz-security-token", "x-amzn-oidc-data", "x-amzn-oidc-accesstoken"),
    *("x-goog-api-key", "x-goog-iap-jwt-assertion", "cf-access-jwt-assertion"),
    *("cf-access-token", "cf-access-client-secret", "x-functions-key"),
    *("ocp-apim-subscription-key", "x-vault-token", "x-consul-token", "private-token"),
    *("job-token", "deploy-token", "x-gitlab-token", "x-shopify-access-token"),
)
"""Header fields, of requests and of responses, whose values are masked."""
