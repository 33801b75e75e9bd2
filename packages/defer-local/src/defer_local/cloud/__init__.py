"""The Cloud Tasks v2 API in front of the durable queue (extra `grpc`), for local work with Google's own client."""
