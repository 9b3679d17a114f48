"""The process platform: app services as local processes that outlive the broker."""
