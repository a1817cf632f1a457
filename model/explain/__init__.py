"""Why a forecast is what it is, and what a promotion would change."""
